"""Weights and cards to the Hugging Face Hub, and back."""
