//! What programs do, and what they cannot do to the process.

use super::*;

fn through(mut stage: impl Stage, payloads: &[&str]) -> Vec<String> {
    let mut out = Vec::new();
    for payload in payloads {
        stage.apply(Event::new(payload.as_bytes().to_vec()), &mut out);
    }
    out.iter().map(|event| String::from_utf8_lossy(&event.payload).into_owned()).collect()
}

fn compile(text: &str) -> Program {
    Program::compile(text).expect("compiles")
}

#[test]
fn filters_let_through_unchanged() {
    let payloads = [r#"{"a": 1}"#, r#"{"a":2}"#, "not json", r#"{"a":"1"}"#];
    assert_eq!(through(Keep::new(compile(".a == 1")), &payloads), [r#"{"a": 1}"#]);
    assert_eq!(through(Keep::new(compile(r#"test("not")"#)), &payloads), ["not json"]);
}

#[test]
fn maps_give_strings_raw_and_the_rest_compact() {
    assert_eq!(through(Map::new(compile(".a, .b")), &[r#"{"a": "x", "b": {"c": 1}}"#]), ["x", r#"{"c":1}"#]);
    assert_eq!(through(Map::new(compile("empty")), &["1"]), [""; 0]);
    assert_eq!(through(Map::new(compile(".a")), &["[1]", r#"{"a":5}"#]), ["5"], "a failure drops that event only");
}

fn nested(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

/// The errors of a program for one payload.
fn error(text: &str, payload: &str) -> String {
    let result = compile(text).run(payload.as_bytes(), |value| Ok(value.to_string()));
    result.expect_err(text)
}

fn results(text: &str, payload: &str) -> Vec<String> {
    compile(text).run(payload.as_bytes(), |value| Ok(value.to_string())).expect(text)
}

#[test]
fn payloads_up_to_the_bound_go_through_everything_that_walks_them() {
    let deep = nested(MAX_DEPTH);
    for program in [".", "tojson | fromjson", "walk(.)", ".. |= .", "[.] | .[0]", "[.] | sort | unique | .[0]"] {
        assert_eq!(results(program, &deep), [deep.as_str()], "{program}");
    }
    assert_eq!(results("[..] | length", &deep), ["1000"]);
    assert_eq!(through(Map::new(compile(".")), &[&deep, &nested(MAX_DEPTH + 1), "1"]), [deep.as_str(), "1"]);
}

#[test]
fn results_and_texts_over_the_bound_are_errors() {
    let deep = nested(MAX_DEPTH);
    assert_eq!(through(Map::new(compile("[.]")), &[&deep, "1"]), ["[1]"]);
    for program in ["fromjson", "tonumber", r#"[.] | .[0] | fromjson"#] {
        let text = format!("\"{}\"", nested(MAX_DEPTH + 1));
        assert!(error(program, &text).contains("deeper than 1000 levels"), "{program}");
    }
    let texts = [r#"{"a":"#.repeat(MAX_DEPTH + 1), "[".repeat(50_000)];
    for text in texts {
        assert!(error(".", &text).contains("deeper than 1000 levels"));
    }
}

#[test]
fn programs_that_call_themselves_for_ever_fail_before_the_stack_does() {
    for program in [
        "def f: f + 1; f",
        "def f: [f]; f",
        "def f: {a: f}; f",
        r#"def f: "\(f)"; f"#,
        r#"def @f: "x\(@f)"; @f"#,
        "def f: f | f; f",
        "def f: -f; f",
        "def f: f as $x | $x; f",
        "def f: reduce f as $x (0; 1); f",
        "def f: if f then 1 else 2 end; f",
        "def f: first(f); f",
        "def f: label $x | f; f",
        "def f: def g: f + 1; g; f",
        "def f(g): f(g | g); f(.)",
        "def f(g; $n): if $n == 0 then g else f(g | .; $n - 1) end; f(.; 1000000)",
        "def f: walk(f); f",
        "def length: length + 1; length",
        "program__ + 1",
        "(reduce range(1000000) as $i (.; .)) |= 1",
    ] {
        assert_eq!(error(program, "1").trim_matches('"'), "the program calls itself too deeply", "{program}");
    }
}

#[test]
fn programs_that_build_deeper_and_deeper_fail() {
    for program in [
        "reduce range(1000000) as $i (0; [.])",
        "reduce range(1000000) as $i (0; {a: .}) | 1",
        "reduce range(1000000) as $i ({}; .a = .) | 1",
        "reduce range(1000000) as $i ([1]; group_by(.)) | 1",
        "last(limit(1000000; recurse([.]))) | 1",
        "def f($a; $n): if $n == 0 then 1 else f([$a]; $n - 1) end; f(0; 1000000)",
        "[1] | reduce range(40) as $i (.; .. |= [.]) | 1",
    ] {
        assert!(error(program, "1").contains("a value is nested deeper than 1000 levels"), "{program}");
    }
}

#[test]
fn loops_and_recursion_within_bounds_are_what_they_were() {
    for (program, result) in [
        ("def f($n): if $n == 0 then 0 else f($n - 1) end; f(20000)", "0"),
        ("def f: if . < 1000 then . + 1 | f else . end; f", "1000"),
        ("def fac: if . <= 1 then 1 else . * (. - 1 | fac) end; 5 | fac", "120"),
        ("def f(g): def h: g + 1; h | g; 1 | f(. * 2)", "6"),
        ("[limit(3; def f: 1, f; f)]", "[1,1,1]"),
        ("def f: .a | select(.) | (., f); {a: {a: {}}} | [path(f)]", r#"[["a"],["a","a"]]"#),
        ("def f: .a; {a: 1} | f |= . + 1 | f *= 3", r#"{"a":6}"#),
        ("[.[]?] | length", "0"),
        ("reduce range(5) as $i ([]; . + [$i * 2])", "[0,2,4,6,8]"),
        ("[foreach (1, 2) as $x (0; . + $x; [$x, .])]", "[[1,1],[2,3]]"),
        ("\"ab\" * 2, 2 * \"ab\", \"ab\" * 0, 2 * 3, {a: 1} * {b: 2}", r#""abab" "abab" null 6 {"a":1,"b":2}"#),
        (
            "[1, [2]] | [paths], flatten, to_entries[0], (map(tojson) | join(\" \"))",
            r#"[[0],[1],[1,0]] [1,2] {"key":0,"value":1} "1 [2]""#,
        ),
        ("def map(f): 3; map(.)", "3"),
        ("def f: reduce (1, 2) as $x (0; . + $x); f", "3"),
        ("{a: [1, 2]} | del(.a[0]), (.a[1:] = [7]), getpath([\"a\", 1])", r#"{"a":[2]} {"a":[1,7]} 2"#),
    ] {
        assert_eq!(results(program, "1").join(" "), result, "{program}");
    }
}

/// Numbers of which three are each less than the next, in a circle: integers are compared as they are, one with a decimal
/// point is rounded.
fn numbers_in_a_circle() -> String {
    let numbers = [
        "9007199254740993",
        "9007199254740992.0",
        "9007199254740991",
        "9007199254740992",
        "9007199254740994",
        "9007199254740993.0",
    ];
    let mut dice = 1_usize;
    let picked = (0..60).map(|_| {
        dice = (dice * 1_103_515_245 + 12_345) % (1 << 31);
        numbers[(dice >> 16) % numbers.len()]
    });
    format!("[{}]", picked.collect::<Vec<_>>().join(","))
}

#[test]
fn numbers_that_no_order_fits_are_an_error_of_that_event() {
    let payloads = [&numbers_in_a_circle(), "[2,1]"];
    assert_eq!(through(Map::new(compile("sort")), &payloads), ["[1,2]"]);
    assert_eq!(error("sort", payloads[0]), "the jq library panicked");
}

#[test]
fn a_panic_of_the_library_is_an_error_of_that_event() {
    let program = compile(r#"[match("(?:(b)|(a))*").string]"#);
    let run = |payload: &str| program.run(payload.as_bytes(), |value| Ok(value.to_string()));
    assert_eq!(run("\"ab\""), Err("the jq library panicked".into()));
    assert_eq!(run("\"b\""), Ok(vec![r#"["b"]"#.into()]));
}

#[test]
fn strings_are_not_repeated_beyond_memory() {
    for program in [". * 1000000000000", "100000000000000000000 * .", "[.] | .[0] *= 1000000000000"] {
        assert!(error(program, "\"x\"").contains("67108864 bytes"), "{program}");
    }
    assert_eq!(results(". * 1000 | length", "\"x\""), ["1000"]);
    assert_eq!(results("[. * -1, . * 100000000000000000000]", "\"\""), [r#"[null,""]"#]);
}

#[test]
fn the_last_event_is_not_where_the_program_fails() {
    let mut until = Until::new(compile(".n == 1"));
    let reached = [&nested(5000), "[]", r#"{"n":2}"#, r#"{"n":1}"#].map(|payload| until.is_reached(payload.as_bytes()));
    assert_eq!(reached, [false, false, false, true]);
    assert_eq!(until.failures.all.load(std::sync::atomic::Ordering::Relaxed), 2);
}

#[test]
fn programs_that_cannot_be_compiled_are_refused_whatever_they_are() {
    let many = |text: &str, times: usize| text.repeat(times);
    for (program, why) in [
        (many("(", 30_000), "closing parenthesis"),
        (many("[", 10_000) + &many("]", 10_000), "nested deeper"),
        (many("try ", 8000) + "1", "nested deeper"),
        (many("-", 32_000) + "1", "nested deeper"),
        (many(".|", 16_000) + ".", "nested deeper"),
        (many("1*", 16_000) + "1", "nested deeper"),
        (many("{a:", 8000) + "1" + &many("}", 8000), "nested deeper"),
        (format!("{{{}}}", many("a,", 8000)), "nested deeper"),
        (".".to_owned() + &many("[0]", 10_000), "nested deeper"),
        (many(". as $x|", 4000) + "$x", "nested deeper"),
        (many("\"\\(", 5000) + "1" + &many(")\"", 5000), "nested deeper"),
        (many("if . then ", 2000) + "." + &many(" end", 2000), "nested deeper"),
        (many(" ", MAX_TEXT + 1), "32768 bytes"),
    ] {
        let error = Program::compile(&program).err().expect("refused");
        assert!(error.contains(why), "{program:.40}: {:.100}", error.trim_start_matches(&program[..]));
    }
    assert!(Program::compile(&(many("def f: 1; ", 3000) + "f")).is_ok());
    assert!(Program::compile(&(many("(", 1000) + "." + &many(")", 1000))).is_ok());
}

#[test]
fn errors_name_the_program() {
    for bad in [".a |", "frobnicate", "$x", "{"] {
        let error = Program::compile(bad).err().expect("refused");
        assert!(error.starts_with(&format!("`{bad}`: ")) && error.len() > bad.len() + 5, "{error}");
    }
}
