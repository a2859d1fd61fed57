//! The options of MQTT.

use clap::Args;

/// Who speaks MQTT, and with whom.
#[derive(Args, Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Mqtt {
    /// Serve MQTT clients here, or `off`; a registry tries localhost:1883 by itself
    #[arg(long, value_name = "H:P")]
    pub mqtt_listen: Option<String>,
    /// Publish every event to this broker: mqtt:// or mqtts://[USER:PASSWORD@]H:P
    #[arg(long, value_name = "URL")]
    pub mqtt_publish: Option<String>,
    /// What a registry's events are called below over MQTT
    #[arg(long, value_name = "BASE", default_value = "maxine/registry/events")]
    pub mqtt_topic: Option<String>,
}
