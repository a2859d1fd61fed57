//! Where a plan listens.

use super::StartError;
use crate::{
    files, panics,
    plan::{MqttDoor, Plan, ServePlan},
    proto::{
        admin::rates,
        bind::{self, Succession},
        listen::{self, Tongue},
    },
    site::Site,
};
use std::sync::Arc;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tracing::{info, warn};

/// Listens for readers until `stopped`, and for those who look inside at a place of their own, if there is one. Returns
/// what listens for readers: it ends once the last is let in.
pub async fn open_all(
    site: &Arc<Site>,
    plan: &Plan,
    stopped: watch::Receiver<bool>,
    never: watch::Receiver<bool>,
) -> Result<JoinSet<()>, StartError> {
    let (mut urls, mut listening) = (Vec::new(), JoinSet::new());
    if let Some((host, port)) = &plan.admin {
        let (door, url) = bind(site, host, *port, plan.reuse_port).await?;
        site.inside.move_to(door.listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?);
        let mut inside = JoinSet::new();
        door.open(site, &never, Tongue::Http, &mut inside);
        inside.detach_all();
        info!(url = %format!("{url}/-/"), "inside");
        urls.push(format!("{url}/-/\n"));
    }
    if let Some(serve) = &plan.serve {
        let (door, url) = open_door(site, serve, plan.reuse_port).await?;
        door.open(site, &stopped, Tongue::Http, &mut listening);
        let url = format!("{url}{}", serve.path);
        info!(%url, "serving");
        urls.insert(0, format!("{url}\n"));
        if let Some((door, url)) = bind_mqtt(site, plan).await? {
            door.open(site, &stopped, Tongue::Mqtt, &mut listening);
            info!(%url, "serving");
            urls.push(format!("{url}\n"));
        }
        if let Some(file) = &serve.ready_file {
            let written = files::write_whole(file, &urls.concat());
            written.map_err(|error| StartError::Failed(format!("write {}: {error}", file.display())))?;
        }
    }
    if !urls.is_empty() {
        tokio::spawn(panics::vital("the rates", rates::run(site.clone())));
    }
    Ok(listening)
}

/// Binds, or takes what the process was started with.
async fn open_door(site: &Site, serve: &ServePlan, reuse_port: bool) -> Result<(Door, String), StartError> {
    let inherited = bind::inherited()?;
    if inherited.is_empty() {
        return bind(site, &serve.host, serve.port, reuse_port).await;
    }
    named(scheme(site), &serve.host, serve.port, Door { listeners: inherited, succession: Succession::Inherited })
}

/// Where MQTT clients come in. A place that nobody asked for may be taken.
async fn bind_mqtt(site: &Site, plan: &Plan) -> Result<Option<(Door, String)>, StartError> {
    let Some(MqttDoor { host, port, optional }) = &plan.mqtt.listen else { return Ok(None) };
    let scheme = if site.tls.is_some() { "mqtts" } else { "mqtt" };
    match bind_as(scheme, host, *port, plan.reuse_port).await {
        Err(error) if *optional => {
            warn!(%error, "no MQTT: --mqtt-listen H:P serves it elsewhere, --mqtt-listen off leaves it out");
            Ok(None)
        }
        bound => bound.map(Some),
    }
}

async fn bind(site: &Site, host: &str, port: u16, reuse_port: bool) -> Result<(Door, String), StartError> {
    bind_as(scheme(site), host, port, reuse_port).await
}

fn scheme(site: &Site) -> &'static str {
    if site.tls.is_some() { "https" } else { "http" }
}

async fn bind_as(scheme: &str, host: &str, port: u16, reuse_port: bool) -> Result<(Door, String), StartError> {
    let succession = if reuse_port { Succession::Beside } else { Succession::None };
    named(scheme, host, port, Door { listeners: bind::bind(host, port, succession).await?, succession })
}

/// With the URL by which it is known.
fn named(scheme: &str, host: &str, port: u16, door: Door) -> Result<(Door, String), StartError> {
    let port = door.listeners.first().map_or(Ok(port), |first| first.local_addr().map(|address| address.port()))?;
    let host = if host.is_empty() { "localhost" } else { host };
    Ok((door, format!("{scheme}://{host}:{port}")))
}

/// Sockets that listen for the same, and what becomes of them.
struct Door {
    listeners: Vec<TcpListener>,
    succession: Succession,
}

impl Door {
    fn open(self, site: &Arc<Site>, stop: &watch::Receiver<bool>, tongue: Tongue, into: &mut JoinSet<()>) {
        for listener in self.listeners {
            let accepting = listen::run(site.clone(), listener, stop.clone(), self.succession, tongue);
            into.spawn(panics::vital("a listener", accepting));
        }
    }
}
