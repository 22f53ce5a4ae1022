//! As much of XML as libvirt writes: elements, attributes, text and the five entities. A document type is refused, so
//! nothing in a file can grow when it is read.

/// The deepest nesting that is read.
const MAX_DEPTH: usize = 64;

/// The most elements of one file.
const MAX_ELEMENTS: usize = 20_000;

/// An element and all below it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) name: String,
    attributes: Vec<(String, String)>,
    children: Vec<Element>,
    text: String,
}

impl Element {
    /// The first child of that name.
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// All children of that name.
    pub(crate) fn children<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The value of an attribute.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The text in it, blanks around it left out.
    pub(crate) fn text(&self) -> &str {
        self.text.trim()
    }
}

/// Parses a file; nothing where it is not well-formed.
pub(crate) fn parse(text: &str) -> Option<Element> {
    let mut open: Vec<Element> = vec![Element::default()];
    let mut rest = text;
    let mut count = 0;
    while let Some((before, tag)) = rest.split_once('<') {
        open.last_mut()?.text.push_str(&unescape(before)?);
        if let Some(comment) = tag.strip_prefix("!--") {
            rest = comment.split_once("-->")?.1;
        } else if let Some(data) = tag.strip_prefix("![CDATA[") {
            let (data, after) = data.split_once("]]>")?;
            open.last_mut()?.text.push_str(data);
            rest = after;
        } else if let Some(instruction) = tag.strip_prefix('?') {
            rest = instruction.split_once("?>")?.1;
        } else if tag.starts_with('!') {
            return None;
        } else if let Some(end) = tag.strip_prefix('/') {
            let (name, after) = end.split_once('>')?;
            let element = open.pop().filter(|element| element.name == name.trim_end())?;
            open.last_mut()?.children.push(element);
            rest = after;
        } else {
            let (element, is_empty, after) = start(tag)?;
            count += 1;
            if count > MAX_ELEMENTS || open.len() > MAX_DEPTH {
                return None;
            }
            if is_empty {
                open.last_mut()?.children.push(element);
            } else {
                open.push(element);
            }
            rest = after;
        }
    }
    let mut document = open.pop().filter(|_| open.is_empty())?;
    if document.children.len() == 1 { document.children.pop() } else { None }
}

/// A start tag behind its `<`: the element, whether it ends here, and what follows.
fn start(tag: &str) -> Option<(Element, bool, &str)> {
    let end = tag.find(|c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>'))?;
    let (name, mut rest) = tag.split_at_checked(end)?;
    if name.is_empty() {
        return None;
    }
    let mut element = Element { name: name.to_owned(), ..Element::default() };
    loop {
        rest = rest.trim_ascii_start();
        if let Some(after) = rest.strip_prefix("/>") {
            return Some((element, true, after));
        }
        if let Some(after) = rest.strip_prefix('>') {
            return Some((element, false, after));
        }
        let (key, value) = rest.split_once('=')?;
        let value = value.trim_ascii_start();
        let quote = value.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let (value, after) = value.strip_prefix(quote)?.split_once(quote)?;
        element.attributes.push((key.trim_ascii().to_owned(), unescape(value)?));
        rest = after;
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, entity)) = rest.split_once('&') {
        out.push_str(before);
        let (entity, after) = entity.split_once(';')?;
        out.push(match entity {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            "apos" => '\'',
            number => {
                let number = number.strip_prefix('#')?;
                let code = match number.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16),
                    None => number.parse(),
                };
                char::from_u32(code.ok()?)?
            }
        });
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_libvirt_writes() {
        let text = "<?xml version='1.0'?>\n<!-- a < b -->\n<a x='1' y=\"&quot;&#65;'\">t&amp;<b/><b z = '>'>u\n</b><![CDATA[<x>]]></a>\n";
        let found = parse(text).unwrap();
        assert_eq!((found.attribute("x"), found.attribute("y")), (Some("1"), Some("\"A'")));
        assert_eq!(found.text(), "t&<x>");
        assert_eq!(found.children("b").count(), 2);
        assert_eq!(found.children("b").nth(1).unwrap().attribute("z"), Some(">"));
        assert_eq!(found.children("b").nth(1).unwrap().text(), "u");
    }

    #[test]
    fn what_it_never_writes() {
        let deep = "<a>".repeat(100) + &"</a>".repeat(100);
        let bad = [
            "",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<!DOCTYPE a [<!ENTITY x 'y'>]><a/>",
            "<a>&x;</a>",
            "<a b/>",
            "</a>",
        ];
        for text in bad.into_iter().chain([deep.as_str()]) {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[<>/a='\"&;#x!\\[\\]?\u{e9} -]{0,60}") {
            let _ = parse(&text);
        }

        #[test]
        fn any_text_comes_back(value in "[ -~\u{e9}]{0,20}") {
            let escaped = value.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;");
            let found = parse(&format!("<a k='{escaped}'>{escaped}</a>")).unwrap();
            prop_assert_eq!(found.attribute("k"), Some(value.as_str()));
            prop_assert_eq!(found.text(), value.trim());
        }
    }
}
