"""Storms: processes that take locks, one after the other, while something strikes them, their requests or their store; and a witness outside of lockkit."""
