"""Stand-ins for a GPU and its driver, for launch/try_gpu_build.sh."""
