//! Where a plan listens.

use super::StartError;
use crate::{
    files,
    plan::{Plan, ServePlan},
    proto::{
        admin::rates,
        bind::{self, Succession},
        listen,
    },
    site::Site,
};
use std::sync::Arc;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tracing::info;

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
        door.open(site, &never).detach_all();
        info!(url = %format!("{url}/-/"), "inside");
        urls.push(format!("{url}/-/\n"));
    }
    if let Some(serve) = &plan.serve {
        let (door, url) = open_door(site, serve, plan.reuse_port).await?;
        listening = door.open(site, &stopped);
        let url = format!("{url}{}", serve.path);
        info!(%url, "serving");
        urls.insert(0, format!("{url}\n"));
        if let Some(file) = &serve.ready_file {
            let written = files::write_whole(file, &urls.concat());
            written.map_err(|error| StartError::Failed(format!("write {}: {error}", file.display())))?;
        }
    }
    if !urls.is_empty() {
        tokio::spawn(rates::run(site.clone()));
    }
    Ok(listening)
}

/// Binds, or takes what the process was started with.
async fn open_door(site: &Site, serve: &ServePlan, reuse_port: bool) -> Result<(Door, String), StartError> {
    let inherited = bind::inherited()?;
    if inherited.is_empty() {
        return bind(site, &serve.host, serve.port, reuse_port).await;
    }
    named(site, &serve.host, serve.port, Door { listeners: inherited, succession: Succession::Inherited })
}

async fn bind(site: &Site, host: &str, port: u16, reuse_port: bool) -> Result<(Door, String), StartError> {
    let succession = if reuse_port { Succession::Beside } else { Succession::None };
    named(site, host, port, Door { listeners: bind::bind(host, port, succession).await?, succession })
}

/// With the URL by which it is known.
fn named(site: &Site, host: &str, port: u16, door: Door) -> Result<(Door, String), StartError> {
    let port = door.listeners.first().map_or(Ok(port), |first| first.local_addr().map(|address| address.port()))?;
    let host = if host.is_empty() { "localhost" } else { host };
    let scheme = if site.tls.is_some() { "https" } else { "http" };
    Ok((door, format!("{scheme}://{host}:{port}")))
}

/// Sockets that listen for the same, and what becomes of them.
struct Door {
    listeners: Vec<TcpListener>,
    succession: Succession,
}

impl Door {
    fn open(self, site: &Arc<Site>, stop: &watch::Receiver<bool>) -> JoinSet<()> {
        let run = |listener| listen::run(site.clone(), listener, stop.clone(), self.succession);
        self.listeners.into_iter().map(run).collect()
    }
}
