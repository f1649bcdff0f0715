"""What people see of a service in a browser."""
