//! `section!`, which describes a section of the file.

/// Describes a section of the file.
///
/// ```text
/// section! {
///     /// What it is.                               the manual
///     RawRetry at "pools[].retry"                   the struct for the section as typed, and its path
///         or (url: BackendUrl)                      if a plain value is short for one key
///         named "pool" by ["name"]                  if it is an entry of a list: what a reload calls it
///         later ["budget"]                          keys that are planned
///         means [Eq] Retry { on: RetryOn };         the struct for the configuration, if it has the same keys
///
///     combined { on: … }                            keys from which `check` makes the fields in braces
///
///     /// What it is. Units, errors.                the manual
///     backoff: Duration                             the type as typed
///         [Bounds::AtMost(…)]                       the range
///         = default(secs(1))                        or required, optional("what leaving it out means"),
///                                                   computed("the rule", |it| …), section
///         where is_on,                              a method: the key only has a meaning if it is true
///         "50ms",                                   an example
///         ForgetsHealth;                            what a reload does to state if the key changes
/// }
/// ```
macro_rules! section {
    (
        $(#[doc = $doc:literal])+
        $raw:ident at $path:literal
            $(or ($short:ident: $short_type:ty))?
            $(named $noun:literal by [$($identity:literal),*])?
            $(later [$($later:literal),*])?
            means $([$($derive:ident),*])? $meaning:ident $({ $($extra:ident: $extra_type:ty),+ })?;
        $($rows:tt)+
    ) => {
        section! {
            $(#[doc = $doc])+
            $raw at $path
                $(or ($short: $short_type))?
                $(named $noun by [$($identity),*])?
                $(later [$($later),*])?;
            $($rows)+
        }
        section! {
            @meaning $raw; $(#[doc = $doc])+ [$($($derive),*)?] $meaning
                { $($($extra: $extra_type),+)? } { $($rows)+ }
        }
    };
    (
        $(#[doc = $doc:literal])+
        $raw:ident at $path:literal
            $(or ($short:ident: $short_type:ty))?
            $(named $noun:literal by [$($identity:literal),*])?
            $(later [$($later:literal),*])?;
        $(combined { $($combined:tt)+ })?
        $(#[doc = $first_doc:literal])+ $first:ident $($rows:tt)*
    ) => {
        section! {
            @raw $(#[doc = $doc])+ $raw at $path
                [$($short: $short_type)?] [$($noun by $($identity),*)?] [$($($later),*)?];
            $($($combined)+)? $(#[doc = $first_doc])+ $first $($rows)*
        }
    };
    (
        @raw $(#[doc = $doc:literal])+ $raw:ident at $path:literal
            [$($short:ident: $short_type:ty)?]
            [$($noun:literal by $($identity:literal),*)?]
            [$($later:literal),*];
        $(
            $(#[doc = $key_doc:literal])+
            $field:ident $(as $name:literal)?: $type:ty $([$bounds:expr])?
                = $kind:ident $(($($arg:tt)*))? $(where $applies:ident)?,
                $example:literal $(, $on_reload:ident)?;
        )+
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Default, PartialEq)]
        pub(in $crate::config) struct $raw {
            $(
                $(#[doc = $key_doc])+
                pub(in $crate::config) $field: Option<$crate::config::problem::Spanned<$type>>,
            )+
            /// Keys that are present but invalid. What they mean together with others is unknown, so
            /// nothing is reported about that.
            pub(in $crate::config) refused: Vec<&'static str>,
        }

        impl $raw {
            pub(in $crate::config) const SECTION: $crate::config::read::Section =
                $crate::config::read::Section {
                    path: $path,
                    doc: &[$($doc),+],
                    short: section!(@short $($short)?),
                    noun: section!(@or "" $($noun)?),
                    identity: &[$($($identity),*)?],
                    keys: &[$(
                        $crate::config::read::Key {
                            name: section!(@name $field $($name)?),
                            expected: <$type as $crate::config::read::FromNode>::expected,
                            bounds: section!(@or $crate::config::read::Bounds::Any, $($bounds)?),
                            presence: section!(@presence $kind $(($($arg)*))?),
                            example: $example,
                            doc: &[$($key_doc),+],
                            on_reload: section!(@on_reload $($on_reload)?),
                            section: <$type as $crate::config::read::FromNode>::SECTION,
                            shape: <$type as $crate::config::read::FromNode>::SHAPE,
                            canonical: |node, key| {
                                let found = &mut $crate::config::problem::Diagnostics::default();
                                let value =
                                    <$type as $crate::config::read::FromNode>::from_node(node, key, found);
                                value.map(|value| $crate::config::read::FromNode::to_yaml(&value))
                            },
                            default: section!(@default_of $raw $field $kind),
                            applies: section!(@applies $raw $($applies)?),
                        }
                    ),+],
                    later: &[$($later),*],
                };

            $(section! { @accessor $field: $type, $kind $(($($arg)*))? })+
        }

        impl $crate::config::read::FromNode for $raw {
            const SECTION: Option<&'static $crate::config::read::Section> = Some(&Self::SECTION);

            fn expected(bounds: $crate::config::read::Bounds) -> String {
                section!(@expected bounds $($short $short_type)?)
            }

            fn from_node(
                node: &$crate::config::yaml::Node,
                key: $crate::config::read::KeyContext,
                found: &mut $crate::config::problem::Diagnostics,
            ) -> Option<Self> {
                $(if !matches!(node.value, $crate::config::yaml::Value::Map(_)) {
                    let key = key.short(Self::SECTION.key(stringify!($short)));
                    let value = <$short_type as $crate::config::read::FromNode>::from_node(
                        node, key, found,
                    )?;
                    let $short = Some($crate::config::problem::Spanned { at: node.at, value });
                    return Some(Self { $short, ..Self::default() });
                })?
                let mut entries =
                    $crate::config::read::Entries::open(node, &Self::SECTION, key, found)?;
                $(let $field = entries.take(section!(@name $field $($name)?), found);)+
                Some(Self { $($field,)+ refused: entries.refused() })
            }

            fn to_yaml(&self) -> String {
                let mut entries: Vec<String> = Vec::new();
                $(if let Some(given) = &self.$field {
                    let value = $crate::config::read::FromNode::to_yaml(&given.value);
                    entries.push(format!("{}: {value}", section!(@name $field $($name)?)));
                })+
                $crate::config::read::one_line(&Self::SECTION, entries)
            }
        }
    };
    (
        @meaning $raw:ident; $(#[doc = $doc:literal])+ [$($derive:ident),*] $meaning:ident
            { $($extra:ident: $extra_type:ty),* }
        {
            $(combined { $($combined:tt)+ })?
            $(
                $(#[doc = $key_doc:literal])+
                $field:ident: $type:ty $([$bounds:expr])?
                    = $kind:ident $(($($arg:tt)*))? $(where $applies:ident)?,
                    $example:literal $(, $on_reload:ident)?;
            )+
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq, $($derive),*)]
        #[expect(
            private_interfaces,
            reason = "the type of a field is the meaning of the type as typed, which is private"
        )]
        pub struct $meaning {
            $(
                /// Made of several keys.
                pub $extra: $extra_type,
            )*
            $(
                $(#[doc = $key_doc])+
                pub $field: section!(@meaning_type $type, $kind),
            )+
        }

        impl $raw {
            /// The configuration, with every default.
            pub(in $crate::config) fn configuration(self $(, $extra: $extra_type)*) -> $meaning {
                $meaning {
                    $($field: section!(@convert self $field $kind),)+
                    $($extra,)*
                }
            }
        }

        section! { @value $raw $meaning $($extra)* }
    };
    (@value $raw:ident $meaning:ident) => {
        impl $crate::config::read::IntoMeaning for $raw {
            type Meaning = $meaning;

            fn meaning(self) -> $meaning {
                self.configuration()
            }
        }

        impl Default for $meaning {
            fn default() -> Self {
                $raw::default().configuration()
            }
        }
    };
    (@value $raw:ident $meaning:ident $($extra:ident)+) => {};
    (@meaning_type $type:ty, optional) => { Option<<$type as $crate::config::read::IntoMeaning>::Meaning> };
    (@meaning_type $type:ty, $kind:ident) => { <$type as $crate::config::read::IntoMeaning>::Meaning };
    (@convert $self:ident $field:ident optional) => {
        $self.$field.clone().map(|given| $crate::config::read::IntoMeaning::meaning(given.value))
    };
    (@convert $self:ident $field:ident $kind:ident) => {
        $crate::config::read::IntoMeaning::meaning($self.$field())
    };
    (@accessor $field:ident: $type:ty, default ($value:expr)) => {
        pub(in $crate::config) fn $field(&self) -> $type {
            match &self.$field {
                Some(given) => given.value.clone(),
                None => <$type as $crate::config::read::Literal<_>>::literal($value),
            }
        }
    };
    (@accessor $field:ident: $type:ty, computed ($words:literal, |$it:ident| $value:expr)) => {
        pub(in $crate::config) fn $field(&self) -> $type {
            let $it = self;
            $it.$field.as_ref().map_or_else(|| $value, |given| given.value.clone())
        }
    };
    (@accessor $field:ident: $type:ty, section) => {
        pub(in $crate::config) fn $field(&self) -> $type {
            self.$field.as_ref().map(|given| given.value.clone()).unwrap_or_default()
        }
    };
    (@accessor $field:ident: $type:ty, required) => {};
    (@accessor $field:ident: $type:ty, optional ($words:literal)) => {};
    (@presence required) => { $crate::config::read::Presence::Required };
    (@presence section) => { $crate::config::read::Presence::Section };
    (@presence default ($($value:tt)+)) => { $crate::config::read::Presence::Default };
    (@presence computed ($words:literal, $($value:tt)+)) => {
        $crate::config::read::Presence::Computed($words)
    };
    (@presence optional ($words:literal)) => { $crate::config::read::Presence::Optional($words) };
    (@default_of $raw:ident $field:ident default) => {
        |_, _| Some($crate::config::read::FromNode::to_yaml(&$raw::default().$field()))
    };
    (@default_of $raw:ident $field:ident computed) => {
        |node, schema| {
            let it = $crate::config::read::read_quietly::<$raw>(node, schema)?;
            Some($crate::config::read::FromNode::to_yaml(&it.$field()))
        }
    };
    (@default_of $raw:ident $field:ident $kind:ident) => { |_, _| None };
    (@applies $raw:ident) => { |_, _| true };
    (@applies $raw:ident $applies:ident) => {
        |node, schema| {
            let it = $crate::config::read::read_quietly::<$raw>(node, schema);
            it.is_none_or(|it| it.$applies())
        }
    };
    (@on_reload) => { $crate::config::read::OnReload::Keeps };
    (@on_reload $on_reload:ident) => { $crate::config::read::OnReload::$on_reload };
    (@expected $bounds:ident) => {{
        let _none = $bounds;
        "a map of keys".to_owned()
    }};
    (@expected $bounds:ident $short:ident $type:ty) => {{
        let bounds = Self::SECTION.key(stringify!($short)).map_or($bounds, |key| key.bounds);
        format!("{} or a map of keys", <$type as $crate::config::read::FromNode>::expected(bounds))
    }};
    (@short) => { None };
    (@short $short:ident) => { Some(stringify!($short)) };
    (@or $default:literal) => { $default };
    (@or $default:literal $given:literal) => { $given };
    (@or $default:expr,) => { $default };
    (@or $default:expr, $given:expr) => { $given };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $name:literal) => { $name };
}
pub(in super::super) use section;
