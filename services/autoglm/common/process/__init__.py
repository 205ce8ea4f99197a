"""What a process is to its operating system: signals, memory, open files, garbage collection."""
