use super::*;

fn position(line: usize, column: usize) -> Origin {
    Origin::File(Position { line, column })
}

fn refusal(bytes: &[u8]) -> String {
    read(bytes).unwrap_err().to_string()
}

fn list(node: &Node) -> &[Node] {
    let Value::List(items) = &node.value else { panic!("no list: {node:?}") };
    items
}

fn map(node: &Node) -> &[(Node, Node)] {
    let Value::Map(entries) = &node.value else { panic!("no map: {node:?}") };
    entries
}

#[test]
fn a_node_knows_its_line_and_its_character() {
    let root = read("ä: [1, {日本: x}]\nb: y\n".as_bytes()).unwrap();
    let entries = map(&root);
    let inner = list(&entries[0].1);
    assert_eq!(inner[0].at, position(1, 5));
    assert_eq!(map(&inner[1])[0].1.at, position(1, 13));
    assert_eq!(entries[1].0.at, position(2, 1));
}

#[test]
fn a_doubled_key_is_there_twice_in_the_order_of_the_file() {
    let root = read(b"{a: 1, b: 2, a: 3}").unwrap();
    let typed: Vec<_> =
        map(&root).iter().map(|(key, value)| (key.typed.as_str(), value.typed.as_str())).collect();
    assert_eq!(typed, [("a", "1"), ("b", "2"), ("a", "3")]);
}

#[test]
fn a_scalar_is_what_yaml_1_2_says_it_is() {
    let root =
        read(b"[on, off, yes, true, 08, 0x10, 1e3, -1, ~, '5', 18446744073709551616]").unwrap();
    let values: Vec<_> = list(&root).iter().map(|node| node.value.clone()).collect();
    assert_eq!(
        values,
        [
            Value::Text,
            Value::Text,
            Value::Text,
            Value::Bool(true),
            Value::Text,
            Value::Whole(16),
            Value::Real(1000.0),
            Value::Real(-1.0),
            Value::Null,
            Value::Text,
            Value::Real(f64::MAX),
        ]
    );
}

#[test]
fn what_an_alias_stands_for_is_where_the_alias_is() {
    let root = read(b"- &a {x: [1]}\n- *a\n").unwrap();
    let items = list(&root);
    assert_eq!(list(&map(&items[0])[0].1)[0].at, position(1, 11));
    assert_eq!(list(&map(&items[1])[0].1)[0].at, position(2, 3));
}

#[test]
fn an_anchor_means_what_it_meant_last() {
    let root = read(b"[&a 1, *a, &a 2, *a]").unwrap();
    let typed: Vec<_> = list(&root).iter().map(|node| node.typed.as_str()).collect();
    assert_eq!(typed, ["1", "1", "2", "2"]);
}

#[test]
fn the_mark_that_some_editors_leave_takes_no_column() {
    let root = read(b"\xef\xbb\xbfa: 1\n").unwrap();
    assert_eq!(map(&root)[0].0.at, position(1, 1));
    assert_eq!(map(&root)[0].0.typed, "a");
}

#[test]
fn a_byte_that_is_not_utf_8_is_named_with_its_place() {
    assert_eq!(
        refusal(b"a: 1\nb: \xc3\xa4\xff\n"),
        "2:5: the byte 0xff is not UTF-8 (help: save the file as UTF-8)"
    );
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let large = vec![b' '; limits::FILE_BYTES_MAX + 1];
    assert!(refusal(&large).starts_with("1:1: the file has 4194305 bytes"), "{}", refusal(&large));
}

#[test]
fn a_file_of_the_largest_size_is_read() {
    let mut text = b"[x] #".to_vec();
    text.resize(limits::FILE_BYTES_MAX, b'#');
    assert!(read(&text).is_ok());
}

#[test]
fn nesting_is_allowed_to_its_limit_and_not_beyond() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(read(nested(limits::FILE_DEPTH_MAX).as_bytes()).is_ok());
    assert!(
        refusal(nested(limits::FILE_DEPTH_MAX + 1).as_bytes()).contains("nested more than 32 deep")
    );
    assert!(refusal("[".repeat(1_000_000).as_bytes()).contains("nested more than 32 deep"));
}

#[test]
fn aliases_cannot_nest_deeper_than_lists() {
    let mut text = "- &a0 [x]\n".to_owned();
    for index in 1..100 {
        text.push_str(&format!("- &a{index} [*a{}]\n", index - 1));
    }
    assert!(
        refusal(text.as_bytes()).starts_with("32:9: lists and maps are nested"),
        "{}",
        refusal(text.as_bytes())
    );
}

#[test]
fn aliases_cannot_multiply_without_end() {
    let mut text = "- &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for index in 1..9 {
        let aliases = vec![format!("*a{}", index - 1); 10].join(", ");
        text.push_str(&format!("- &a{index} [{aliases}]\n"));
    }
    assert!(
        refusal(text.as_bytes()).contains("more than 1000000 values"),
        "{}",
        refusal(text.as_bytes())
    );
}

#[test]
fn an_alias_cannot_stand_inside_of_what_it_stands_for() {
    assert_eq!(refusal(b"&a [1, *a]"), "1:8: this alias stands inside of what it stands for");
}

#[test]
fn both_readers_agree_on_every_way_to_write_text() {
    let text = "
plain: a b
folded over lines: a
  b

  c
single: 'it''s'
double: \"a\\tb\\u00e4\\
  c\"
lines: |
  a
   b

kept: |+
  a

stripped: >-
  a
  b

    c
? complex
: value
\"quoted key\": [a, 'b', \"c\",]
url: http://a:80/x#y
comment: a # b
dash: -a
empty:
nothing: ''
";
    let root = read(text.as_bytes()).unwrap();
    let typed: Vec<_> = map(&root).iter().map(|(_, value)| value.typed.as_str()).collect();
    assert_eq!(
        typed,
        [
            "a b",
            "a b\nc",
            "it's",
            "a\tbäc",
            "a\n b\n",
            "a\n\n",
            "a b\n\n  c",
            "value",
            "",
            "http://a:80/x#y",
            "a",
            "-a",
            "",
            ""
        ]
    );
}

#[test]
fn windows_line_ends_are_line_ends() {
    let root = read(b"a: 1\r\nb: |\r\n  x\r\n  y\r\nc: 3\r\n").unwrap();
    assert_eq!(map(&root)[1].1.typed, "x\ny\n");
    assert_eq!(map(&root)[2].0.at, position(5, 1));
}
