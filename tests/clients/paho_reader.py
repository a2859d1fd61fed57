"""An MQTT subscriber: HOST PORT FILTER QOS COUNT VERSION; prints each message as "topic payload"."""

import sys

import paho.mqtt.client as mqtt

host, port, topic_filter, qos, count, version = sys.argv[1:7]
left = int(count)


def on_connect(client, _data, _flags, reason, _properties):
    if reason.is_failure:
        sys.exit(f"not let in: {reason}")
    client.subscribe(topic_filter, qos=int(qos))


def on_message(client, _data, message):
    global left
    print(message.topic, message.payload.decode(), flush=True)
    left -= 1
    if left == 0:
        client.disconnect()


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5 if version == "5" else mqtt.MQTTv311)
client.on_connect = on_connect
client.on_message = on_message
client.connect(host, int(port))
client.loop_forever()
