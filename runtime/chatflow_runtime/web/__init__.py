"""HTTP, SSE and WebSocket: routes, wire schemas, problems, the widget."""
