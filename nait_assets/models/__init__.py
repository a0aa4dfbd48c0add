"""How a language model is run over conversations: encoding, attention, batches, adapters. No assets."""
