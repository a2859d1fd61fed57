// Asks what has happened.
fetch('http://localhost:8080/events?since=1640995200000&limit=10')
  .then((answer) => answer.json())
  .then((events) => events.forEach((event) => console.log('happened', event)));
