"""Training from Python: what `import openrs` offers.

train -> given     rows, functions and settings become files that a recipe names
     |-> commands  the same command as in a terminal, in a process of its own
     `-> finished  a run's folder as tables
"""
