"""How the data are acquired: schedules, time encoding, physical constants."""
