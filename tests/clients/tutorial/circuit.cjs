// Asks how an instance's circuit stands.
fetch('http://localhost:8080/circuit-breaker/my-service:localhost:3000')
  .then((answer) => answer.json())
  .then(({ state, failureCount }) => console.log('it is', { state, failureCount }));
