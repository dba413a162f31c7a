"""Stand-ins for a GPU and its driver, and what can be tried with them: used by launch/try_gpu_build.sh only."""
