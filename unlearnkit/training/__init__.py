"""What every method that trains is put together from: the loop, its settings, and what it trains on."""
