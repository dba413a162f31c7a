// A stand-in for the NVIDIA driver's library on a machine without one: it says CUDA 13.0 and no device. Libraries that are
// linked with the driver can be loaded; nothing can be computed.
//   gcc -shared -fPIC -o libcuda.so.1 libcuda.c
enum { SUCCESS = 0, NO_DEVICE = 100 };

int cuDriverGetVersion(int *version) {
    *version = 13000;
    return SUCCESS;
}

#define WITHOUT_A_DEVICE(function) int function(void) { return NO_DEVICE; }

WITHOUT_A_DEVICE(cuInit)
WITHOUT_A_DEVICE(cuGetProcAddress)
WITHOUT_A_DEVICE(cuGetProcAddress_v2)
WITHOUT_A_DEVICE(cuGetErrorString)
WITHOUT_A_DEVICE(cuDeviceGet)
WITHOUT_A_DEVICE(cuDeviceGetCount)
WITHOUT_A_DEVICE(cuDeviceGetAttribute)
WITHOUT_A_DEVICE(cuDevicePrimaryCtxRetain)
WITHOUT_A_DEVICE(cuCtxGetCurrent)
WITHOUT_A_DEVICE(cuCtxSetCurrent)
WITHOUT_A_DEVICE(cuMemAddressReserve)
WITHOUT_A_DEVICE(cuMemAddressFree)
WITHOUT_A_DEVICE(cuMemCreate)
WITHOUT_A_DEVICE(cuMemMap)
WITHOUT_A_DEVICE(cuMemSetAccess)
WITHOUT_A_DEVICE(cuMemUnmap)
WITHOUT_A_DEVICE(cuMemRelease)
WITHOUT_A_DEVICE(cuMemGetAllocationGranularity)
WITHOUT_A_DEVICE(cuPointerGetAttribute)
WITHOUT_A_DEVICE(cuTensorMapEncodeTiled)
