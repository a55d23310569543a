"""Files in and out; nothing else but the workflow touches any."""
