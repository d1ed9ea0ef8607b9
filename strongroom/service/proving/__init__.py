"""Statements to others: bundles, receipts kept, witnesses, timestamps."""
