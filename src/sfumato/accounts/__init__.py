"""Who may do what, and what they may still spend: users, keys, credits."""
