//! What services are configured with: values by service and key, each with a version that counts its sets.

use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// One key's value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Any JSON, `null` included.
    pub value: Value,
    /// From 1, one more with each set; a deleted key begins anew.
    pub version: u64,
    /// What the setter says about it.
    pub metadata: Map<String, Value>,
    /// Unix milliseconds.
    pub updated_at: u64,
}

impl Entry {
    /// As the API shows it.
    pub fn to_json(&self) -> Value {
        json!({
            "value": self.value, "version": self.version, "metadata": self.metadata, "updatedAt": self.updated_at,
        })
    }
}

/// Every service's keys. A service need not be registered to have some.
#[derive(Debug, Default)]
pub struct Configs {
    by_service: HashMap<Arc<str>, BTreeMap<String, Entry>>,
    /// What was there before each change since the last [commit](Self::commit).
    undo: Vec<(Arc<str>, String, Option<Entry>)>,
}

impl Configs {
    /// Sets a key; the entry as it is now.
    pub fn set(
        &mut self,
        service: &Arc<str>,
        key: String,
        value: Value,
        metadata: Map<String, Value>,
        now_ms: u64,
    ) -> Entry {
        let keys = self.by_service.entry(service.clone()).or_default();
        let version = keys.get(&key).map_or(1, |entry| entry.version + 1);
        let entry = Entry { value, version, metadata, updated_at: now_ms };
        let before = keys.insert(key.clone(), entry.clone());
        self.undo.push((service.clone(), key, before));
        entry
    }

    /// Takes back a key as it was.
    pub fn restore(&mut self, service: Arc<str>, key: String, entry: Entry) {
        self.by_service.entry(service).or_default().insert(key, entry);
    }

    /// What has changed so far stays.
    pub fn commit(&mut self) {
        self.undo.clear();
    }

    /// Everything is again as it was at the last [commit](Self::commit).
    pub fn roll_back(&mut self) {
        while let Some((service, key, before)) = self.undo.pop() {
            match before {
                Some(entry) => self.restore(service, key, entry),
                None => drop(self.take(&service, &key)),
            }
        }
    }

    /// One key.
    pub fn get(&self, service: &str, key: &str) -> Option<&Entry> {
        self.by_service.get(service)?.get(key)
    }

    /// All keys of a service, in order.
    pub fn all(&self, service: &str) -> impl Iterator<Item = (&String, &Entry)> {
        self.by_service.get(service).into_iter().flatten()
    }

    /// Whether there was such a key.
    pub fn delete(&mut self, service: &str, key: &str) -> bool {
        let Some(entry) = self.take(service, key) else { return false };
        self.undo.push((service.into(), key.to_owned(), Some(entry)));
        true
    }

    fn take(&mut self, service: &str, key: &str) -> Option<Entry> {
        let keys = self.by_service.get_mut(service)?;
        let entry = keys.remove(key);
        if keys.is_empty() {
            self.by_service.remove(service);
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_count_sets_and_begin_anew_behind_a_delete() {
        let (mut configs, service) = (Configs::default(), Arc::from("a"));
        let set = |configs: &mut Configs| configs.set(&service, "k".into(), Value::Null, Map::new(), 1).version;
        assert_eq!((set(&mut configs), set(&mut configs)), (1, 2));
        assert!(configs.delete("a", "k") && !configs.delete("a", "k") && configs.get("a", "k").is_none());
        assert_eq!(set(&mut configs), 1);
        assert_eq!(configs.all("a").count(), 1);
        configs.commit();
        assert_eq!(set(&mut configs), 2);
        assert!(configs.delete("a", "k"));
        configs.roll_back();
        assert_eq!(configs.get("a", "k").map(|entry| entry.version), Some(1), "as it was");
        assert_eq!(configs.all("b").count(), 0);
    }
}
