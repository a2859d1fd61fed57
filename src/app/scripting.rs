//! The scripts of a plan.

use super::StartError;
use crate::{
    cli::StageArg,
    files::Check,
    graphql::Subscriptions,
    plan::Plan,
    proto::folder::Folder,
    script::{Scripts, World, stage::ScriptStage},
    site::Site,
    streams::Streams,
};
use std::{io, sync::Arc};

/// Loads the scripts among the stages, in their order.
///
/// # Errors
/// The first that does not load: where, and why.
pub fn load_stages(plan: &Plan, watched: &mut Vec<Arc<dyn Check>>) -> Result<Vec<ScriptStage>, StartError> {
    let files = plan.stages.iter().filter_map(|stage| match stage {
        StageArg::Script(file) => Some(file.clone()),
        _ => None,
    });
    let stages: Vec<_> =
        files.map(|file| ScriptStage::open(file, plan.script_limits)).collect::<Result<_, _>>().map_err(not_loaded)?;
    watched.extend(stages.iter().map(|stage| stage.watched() as Arc<dyn Check>));
    Ok(stages)
}

/// Puts all scripts into the site, and the streams and files that are served beside them.
///
/// # Errors
/// The first script that does not load: where, and why; a directory that cannot be served.
pub fn set_up(
    site: &mut Site,
    plan: &Plan,
    stages: Vec<ScriptStage>,
    watched: &mut Vec<Arc<dyn Check>>,
) -> Result<(), StartError> {
    site.folder = plan.folder.as_deref().map(Folder::open).transpose()?;
    let streams = Arc::new(Streams::new(site.topics.clone(), plan.window, plan.policy.clone()));
    let subscriptions = Arc::new(Subscriptions::new(streams.clone()));
    let world =
        World { streams: streams.clone(), subscriptions: subscriptions.clone(), max_message: plan.rules.max_message };
    let scripts = Scripts::open(&plan.scripts, plan.script_limits, stages, &world).map_err(not_loaded)?;
    watched.extend(scripts.files().iter().map(|script| script.watched() as Arc<dyn Check>));
    site.streams = (!plan.scripts.is_empty()).then_some(streams);
    site.graphql = (!plan.scripts.is_empty()).then_some(subscriptions);
    site.scripts = scripts;
    Ok(())
}

/// Loads every script once, without a process around it.
///
/// # Errors
/// The first that does not load: where, and why.
pub fn check(plan: &Plan) -> Result<(), StartError> {
    let stages = load_stages(plan, &mut Vec::new())?;
    let streams = Arc::new(Streams::new(Arc::default(), plan.window, None));
    let subscriptions = Arc::new(Subscriptions::new(streams.clone()));
    let world = World { streams, subscriptions, max_message: plan.rules.max_message };
    Scripts::open(&plan.scripts, plan.script_limits, stages, &world).map(drop).map_err(not_loaded)
}

fn not_loaded(why: io::Error) -> StartError {
    StartError::Misconfigured(why.to_string())
}
