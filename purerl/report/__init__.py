"""What people look at: tables, figures, other conditions, statistics."""
