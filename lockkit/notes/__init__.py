"""Things that people and programs leave in a store beside claims: requests, remarks, records; and the names of pools and members."""
