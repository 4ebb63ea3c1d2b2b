"""The project's tests, by cost: unit, property, contract, integration, acceptance, benchmarks."""
