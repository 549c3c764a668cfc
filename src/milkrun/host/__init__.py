"""What every part needs of its own machine: files that are whole, secrets that only their owner reads, processes
for sure.
"""
