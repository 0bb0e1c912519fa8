"""The service, on real stores: every vector right, every token booked, nobody left waiting."""
