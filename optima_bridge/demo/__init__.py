"""`bridge demo`: a simulated store on ptys, a private broker, and the real daemon with its real drivers between them."""
