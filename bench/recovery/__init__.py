"""The recovery corpus, and what each parser makes of it."""
