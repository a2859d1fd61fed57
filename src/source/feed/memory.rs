//! Where an upstream stood in another life, and what is kept for the next one: a cursor file, a journal's notes, a trail.

use super::{
    super::{
        cursor::CursorFile,
        place::{Place, Trail},
    },
    Feed,
};
use crate::{
    id::{Id, Since},
    recorder::{Note, Notes},
};
use std::sync::Arc;

impl Feed {
    /// Goes on behind what the file remembers: a position of ours or another server's id.
    ///
    /// # Errors
    /// When the file exists and cannot be read.
    pub fn remember(&mut self, file: CursorFile) -> std::io::Result<()> {
        if let Some(text) = file.read()? {
            match Id::parse(&text) {
                // A keeper mirrors its upstream's window: a position never shortens that (LINKS 27).
                Some(_) if self.keeps => {}
                Some(id) => self.start = Some(Since::After(id)),
                None => self.foreign = Some(text),
            }
        }
        self.cursor_file = Some(file);
        Ok(())
    }

    /// Begins behind the place that is remembered, and lays a trail for what is to be remembered next.
    pub fn resume(&mut self, from: Option<Place>, trail: Arc<Trail>) {
        match from {
            Some(Place::Foreign(id)) => self.foreign = Some(id),
            Some(Place::Ours(id)) => self.start = Some(Since::After(id)),
            None => {}
        }
        if !self.keeps {
            trail.begin();
        }
        self.trail = Some(trail);
    }

    pub(super) fn lay(&self, place: Place) {
        if let Some(trail) = self.trail.as_ref().filter(|_| !self.keeps) {
            trail.put(self.topic.log.end(), place);
        }
    }

    /// Goes on where a journal noted that the upstream stood, and notes it there from here on. `has_past` when the
    /// journal gave back events.
    pub fn note_place(&mut self, name: String, notes: &Notes, has_past: bool) {
        match notes.get(&name).and_then(|value| Place::read(value)) {
            Some(Place::Foreign(id)) => self.foreign = Some(id),
            Some(Place::Ours(id)) if !self.keeps => self.start = Some(Since::After(id)),
            _ => {}
        }
        self.place = Some(name);
        // It was, in another life.
        self.opened = has_past;
    }

    /// For the journal: the upstream stands here.
    pub(super) fn noted(&self, place: impl FnOnce() -> Option<Place>) -> Option<Note> {
        let name = self.place.clone().filter(|_| !self.keeps)?;
        Some(Note { name, value: place()?.to_string().into(), lasting: true })
    }

    pub(super) fn noted_foreign(&self) -> Option<Note> {
        self.noted(|| self.foreign.clone().map(Place::Foreign))
    }

    pub(super) fn write_cursor(&mut self) {
        let position = self.foreign.clone().or_else(|| self.position.as_ref().map(ToString::to_string));
        if let (Some(file), Some(position)) = (&mut self.cursor_file, position) {
            file.note(&position);
        }
    }
}
