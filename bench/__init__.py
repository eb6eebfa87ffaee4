"""What one check costs: servmon against its own floors, in one run on one machine."""
