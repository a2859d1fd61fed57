// Reads an event stream with the package `eventsource`: node eventsource_reader.js URL
//
// Says "open", and prints each event as ["text", data, id].

import { EventSource } from "eventsource";

const say = (...words) => console.log(JSON.stringify(words));

const source = new EventSource(process.argv[2]);
source.onopen = () => say("open");
source.onmessage = (event) => say("text", event.data, event.lastEventId);
source.addEventListener("gap", (event) => say("gap", event.data));
