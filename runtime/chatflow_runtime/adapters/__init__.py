"""What the runtime talks to: models, business APIs, the knowledge index. Each translates foreign errors."""
