"""Notes in a store beside claims: requests, remarks, records; and the names of pools and members."""
