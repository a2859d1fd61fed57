//! Where MQTT is spoken.

use super::{Planned, Refusal, refuse, serve::split_address};
use crate::{cli::Args, proto::mqtt::is_topic_name};
use url::Url;

/// Where a registry listens if it can.
const USUAL: (&str, u16) = ("localhost", 1883);
/// What a registry's events are called below.
const BASE: &str = "maxine/registry/events";

/// What is done about MQTT.
#[derive(Debug, Clone, PartialEq)]
pub struct MqttPlan {
    /// Where clients are served, on a port of its own.
    pub listen: Option<MqttDoor>,
    /// The broker that is told everything.
    pub publish: Option<Url>,
    /// What a registry's events are called below.
    pub base: String,
}

/// Where MQTT clients come in.
#[derive(Debug, Clone, PartialEq)]
pub struct MqttDoor {
    /// The host part.
    pub host: String,
    /// 0 is any free one.
    pub port: u16,
    /// Nobody asked for it: it may be taken.
    pub optional: bool,
}

pub(super) fn speaking(args: &Args, serves: bool) -> Planned<MqttPlan> {
    let typed = &args.mqtt;
    let registry = args.registry.registry == Some(true);
    let listen = match typed.mqtt_listen.as_deref() {
        Some("off") => None,
        Some(_) if !serves => return refuse("--mqtt-listen serves readers: drop --no-serve"),
        Some(address) => {
            let (host, port) = split_address(address)?;
            Some(MqttDoor { host, port, optional: false })
        }
        None => registry.then(|| MqttDoor { host: USUAL.0.into(), port: USUAL.1, optional: true }),
    };
    let base = typed.mqtt_topic.clone().unwrap_or_else(|| BASE.into());
    if base != BASE && !registry {
        return refuse("--mqtt-topic is about a registry\'s events: add --registry");
    }
    if !is_topic_name(&base) || base.ends_with('/') {
        return refuse(format!("--mqtt-topic `{base}` is no topic: type for instance {BASE}"));
    }
    let publish = typed.mqtt_publish.as_deref().map(broker).transpose()?;
    if publish.is_some() && !serves {
        return refuse("--mqtt-publish tells a broker what is served: drop --no-serve");
    }
    Ok(MqttPlan { listen, publish, base })
}

/// With its port, which `url` does not know for these schemes.
fn broker(text: &str) -> Planned<Url> {
    let wrong = || Refusal(format!("`{}` is no broker: type for instance mqtt://localhost:1883", shown(text)));
    let mut url = Url::parse(text).map_err(|_| wrong())?;
    let usual = match url.scheme() {
        "mqtt" => 1883,
        "mqtts" => 8883,
        _ => return Err(wrong()),
    };
    if url.host_str().is_none_or(str::is_empty) || !matches!(url.path(), "" | "/") || url.query().is_some() {
        return Err(wrong());
    }
    let port = url.port().unwrap_or(usual);
    url.set_port(Some(port)).map_err(|()| wrong())?;
    Ok(url)
}

/// Without what may be a password.
fn shown(text: &str) -> &str {
    text.rsplit_once('@').map_or(text, |(_, place)| place)
}
