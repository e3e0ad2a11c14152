"""The drill: deploys the real app to the local AWS, backs up, breaks, recovers, and reports. `make drill`."""
