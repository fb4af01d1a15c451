"""The signing service: gives certified events and receipts their authority signature."""
