"""What runs promise under faults (R, O), planted and looked for."""
