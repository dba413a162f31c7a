"""Everything that only a GPU can show, in independent parts, by one command: `python -m launch.performance.gpu_suite`.

    __main__ -> runner   each part in a process of its own, with a limit; knows nothing of GPUs
                   |
                  one -> a part's function (`PARTS`), which yields rows as it finds them
    table                all results as a markdown table

A part runs in one of two sizes: `full` on a GPU, and `tiny` on a CPU, where the same code runs on small inputs, so that a
mistake in it is found before there is a GPU.
"""
