"""Storms: processes take locks while they, their requests or their store are struck; an outside witness."""
