//! The fields that packets are made of, read from the front.

use super::packet::{Fault, Properties, Version, property};
use bytes::{Buf, Bytes};

/// A variable byte integer and how many bytes it has (MQTT 5 §1.5.5).
pub fn variable(bytes: &[u8]) -> Result<Option<(u32, usize)>, Fault> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some((value, i + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(Fault::malformed("a length has more than four bytes")) }
}

/// A packet's body, read from the front.
pub(super) struct Fields(pub Bytes);

impl Fields {
    pub fn take(&mut self, n: usize) -> Result<Bytes, Fault> {
        if n > self.0.len() {
            return Err(Fault::malformed("packet ends too early"));
        }
        Ok(self.0.split_to(n))
    }

    pub fn byte(&mut self) -> Result<u8, Fault> {
        Ok(self.take(1)?[0])
    }

    pub fn two(&mut self) -> Result<u16, Fault> {
        Ok(self.take(2)?.get_u16())
    }

    pub fn four(&mut self) -> Result<u32, Fault> {
        Ok(self.take(4)?.get_u32())
    }

    pub fn variable(&mut self) -> Result<u32, Fault> {
        let (value, digits) = variable(&self.0)?.ok_or(Fault::malformed("packet ends too early"))?;
        self.0.advance(digits);
        Ok(value)
    }

    pub fn binary(&mut self) -> Result<Bytes, Fault> {
        let length = self.two()?;
        self.take(length.into())
    }

    /// MQTT 5 §1.5.4.
    pub fn text(&mut self) -> Result<String, Fault> {
        let text = String::from_utf8(self.binary()?.into()).map_err(|_| Fault::malformed("text is not UTF-8"))?;
        if text.contains('\0') { Err(Fault::malformed("text holds U+0000")) } else { Ok(text) }
    }

    pub fn identifier(&mut self) -> Result<u16, Fault> {
        match self.two()? {
            0 => Err(Fault::protocol("packet identifier 0")),
            id => Ok(id),
        }
    }

    /// Those with the `allowed` identifiers, each once, user properties as often as they come (MQTT 5 §2.2.2).
    pub fn properties(&mut self, version: Version, allowed: &[u8]) -> Result<Properties, Fault> {
        let mut all = Properties::default();
        if version == Version::V4 {
            return Ok(all);
        }
        let length = self.variable()? as usize;
        let mut fields = Fields(self.take(length)?);
        while !fields.0.is_empty() {
            let id = fields.byte()?;
            if !allowed.contains(&id) {
                return Err(Fault::protocol("a property that has no place here"));
            }
            if all.number(id).is_some() || all.text(id).is_some() {
                return Err(Fault::protocol("a property stands twice"));
            }
            fields.property(id, &mut all)?;
        }
        Ok(all)
    }

    pub fn property(&mut self, id: u8, all: &mut Properties) -> Result<(), Fault> {
        use property as p;
        let number = match id {
            p::PAYLOAD_FORMAT | p::REQUEST_PROBLEM | p::REQUEST_RESPONSE => {
                let flag = self.byte()?;
                if flag > 1 {
                    return Err(Fault::protocol("a switch is neither on nor off"));
                }
                flag.into()
            }
            p::RECEIVE_MAXIMUM | p::TOPIC_ALIAS_MAXIMUM | p::TOPIC_ALIAS => self.two()?.into(),
            p::MESSAGE_EXPIRY | p::SESSION_EXPIRY | p::WILL_DELAY | p::MAXIMUM_PACKET => self.four()?,
            p::SUBSCRIPTION_ID => self.variable()?,
            p::USER => {
                all.user.push((self.text()?, self.text()?));
                return Ok(());
            }
            p::CORRELATION | p::AUTH_DATA => {
                self.binary()?;
                all.texts.push((id, String::new()));
                return Ok(());
            }
            _ => {
                all.texts.push((id, self.text()?));
                return Ok(());
            }
        };
        if number == 0 && matches!(id, p::RECEIVE_MAXIMUM | p::MAXIMUM_PACKET | p::SUBSCRIPTION_ID) {
            return Err(Fault::protocol("a property must not be 0"));
        }
        all.numbers.push((id, number));
        Ok(())
    }
}
