"""Files and processes: what every room reads and writes with."""
