"""Public fakes and fixtures, for our tests and for yours. Each fake passes the contract suite of the real part."""
