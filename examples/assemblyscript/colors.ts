// Names colours: `nearest(255, 250, 240)` is "floralwhite", and so is every
// colour that looks more like it than like any other of CSS's named colours.
// (Where CSS has two names for one colour, there is one here.)
//
// "Looks like" is distance in the CIELAB space. To get there, each named colour
// takes three powers and three cube roots, and to search quickly they are kept
// in a k-d tree. All of it is top-level code: AssemblyScript puts that into the
// module's start function, `--exportStart initialize` exports the function for
// wizer to call, and the finished tree, strings and all, becomes a part of the
// module.

const names: string =
  "aliceblue f0f8ff antiquewhite faebd7 aqua 00ffff aquamarine 7fffd4 " +
  "azure f0ffff beige f5f5dc bisque ffe4c4 black 000000 " +
  "blanchedalmond ffebcd blue 0000ff blueviolet 8a2be2 brown a52a2a " +
  "burlywood deb887 cadetblue 5f9ea0 chartreuse 7fff00 chocolate d2691e " +
  "coral ff7f50 cornflowerblue 6495ed cornsilk fff8dc crimson dc143c " +
  "darkblue 00008b darkcyan 008b8b darkgoldenrod b8860b darkgray a9a9a9 " +
  "darkgreen 006400 darkkhaki bdb76b darkmagenta 8b008b darkolivegreen 556b2f " +
  "darkorange ff8c00 darkorchid 9932cc darkred 8b0000 darksalmon e9967a " +
  "darkseagreen 8fbc8f darkslateblue 483d8b darkslategray 2f4f4f " +
  "darkturquoise 00ced1 darkviolet 9400d3 deeppink ff1493 deepskyblue 00bfff " +
  "dimgray 696969 dodgerblue 1e90ff firebrick b22222 floralwhite fffaf0 " +
  "forestgreen 228b22 fuchsia ff00ff gainsboro dcdcdc ghostwhite f8f8ff " +
  "gold ffd700 goldenrod daa520 gray 808080 green 008000 greenyellow adff2f " +
  "honeydew f0fff0 hotpink ff69b4 indianred cd5c5c indigo 4b0082 ivory fffff0 " +
  "khaki f0e68c lavender e6e6fa lavenderblush fff0f5 lawngreen 7cfc00 " +
  "lemonchiffon fffacd lightblue add8e6 lightcoral f08080 lightcyan e0ffff " +
  "lightgoldenrodyellow fafad2 lightgray d3d3d3 lightgreen 90ee90 " +
  "lightpink ffb6c1 lightsalmon ffa07a lightseagreen 20b2aa " +
  "lightskyblue 87cefa lightslategray 778899 lightsteelblue b0c4de " +
  "lightyellow ffffe0 lime 00ff00 limegreen 32cd32 linen faf0e6 maroon 800000 " +
  "mediumaquamarine 66cdaa mediumblue 0000cd mediumorchid ba55d3 " +
  "mediumpurple 9370db mediumseagreen 3cb371 mediumslateblue 7b68ee " +
  "mediumspringgreen 00fa9a mediumturquoise 48d1cc mediumvioletred c71585 " +
  "midnightblue 191970 mintcream f5fffa mistyrose ffe4e1 moccasin ffe4b5 " +
  "navajowhite ffdead navy 000080 oldlace fdf5e6 olive 808000 " +
  "olivedrab 6b8e23 orange ffa500 orangered ff4500 orchid da70d6 " +
  "palegoldenrod eee8aa palegreen 98fb98 paleturquoise afeeee " +
  "palevioletred db7093 papayawhip ffefd5 peachpuff ffdab9 peru cd853f " +
  "pink ffc0cb plum dda0dd powderblue b0e0e6 purple 800080 " +
  "rebeccapurple 663399 red ff0000 rosybrown bc8f8f royalblue 4169e1 " +
  "saddlebrown 8b4513 salmon fa8072 sandybrown f4a460 seagreen 2e8b57 " +
  "seashell fff5ee sienna a0522d silver c0c0c0 skyblue 87ceeb " +
  "slateblue 6a5acd slategray 708090 snow fffafa springgreen 00ff7f " +
  "steelblue 4682b4 tan d2b48c teal 008080 thistle d8bfd8 tomato ff6347 " +
  "turquoise 40e0d0 violet ee82ee wheat f5deb3 white ffffff " +
  "whitesmoke f5f5f5 yellow ffff00 yellowgreen 9acd32";

/** A colour in CIELAB, and a node of the tree. */
class Color {
  name: string = "";
  left: Color | null = null;
  right: Color | null = null;

  constructor(
    readonly lightness: f64,
    readonly a: f64,
    readonly b: f64,
  ) {}

  static fromRgb(red: i32, green: i32, blue: i32): Color {
    const r = linear(red);
    const g = linear(green);
    const b = linear(blue);
    // The matrix of sRGB, each row divided by its white.
    const x = root((0.4124564 * r + 0.3575761 * g + 0.1804375 * b) / 0.95047);
    const y = root(0.2126729 * r + 0.7151522 * g + 0.072175 * b);
    const z = root((0.0193339 * r + 0.119192 * g + 0.9503041 * b) / 1.08883);
    return new Color(116 * y - 16, 500 * (x - y), 200 * (y - z));
  }

  along(axis: i32): f64 {
    return axis == 0 ? this.lightness : axis == 1 ? this.a : this.b;
  }

  /** The square of the distance. */
  distance(other: Color): f64 {
    const lightness = this.lightness - other.lightness;
    const a = this.a - other.a;
    const b = this.b - other.b;
    return lightness * lightness + a * a + b * b;
  }
}

/** From the sRGB curve to an amount of light. */
function linear(component: i32): f64 {
  const value = <f64>component / 255;
  return value <= 0.04045 ? value / 12.92 : Math.pow((value + 0.055) / 1.055, 2.4);
}

function root(value: f64): f64 {
  return value > 216.0 / 24389.0
    ? Math.cbrt(value)
    : ((24389.0 / 27.0) * value + 16) / 116;
}

function parse(source: string): Color[] {
  const words = source.split(" ");
  const colors: Color[] = [];
  for (let i = 0; i < words.length; i += 2) {
    const rgb = <i32>parseInt(words[i + 1], 16);
    const color = Color.fromRgb(rgb >> 16, (rgb >> 8) & 255, rgb & 255);
    color.name = words[i];
    colors.push(color);
  }
  return colors;
}

// Functions cannot capture the axis to sort by, so there is one for each.
const byAxis: ((one: Color, other: Color) => i32)[] = [
  (one, other) => order(one.lightness, other.lightness),
  (one, other) => order(one.a, other.a),
  (one, other) => order(one.b, other.b),
];

function order(one: f64, other: f64): i32 {
  return i32(one > other) - i32(one < other);
}

/** The middle colour along one axis divides the others; so on with the next. */
function tree(colors: Color[], axis: i32): Color | null {
  if (colors.length == 0) return null;
  colors.sort(byAxis[axis]);
  const middle = colors.length >> 1;
  const node = colors[middle];
  node.left = tree(colors.slice(0, middle), (axis + 1) % 3);
  node.right = tree(colors.slice(middle + 1), (axis + 1) % 3);
  return node;
}

function search(node: Color, target: Color, best: Color, axis: i32): Color {
  if (node.distance(target) < best.distance(target)) best = node;
  const beyond = target.along(axis) - node.along(axis);
  const near = beyond < 0 ? node.left : node.right;
  const far = beyond < 0 ? node.right : node.left;
  const next = (axis + 1) % 3;
  if (near != null) best = search(near, target, best, next);
  // The other side only where something there can be nearer than the best.
  if (far != null && beyond * beyond < best.distance(target)) {
    best = search(far, target, best, next);
  }
  return best;
}

const colors = parse(names);
const top = tree(colors, 0)!;

/** The name of the named colour that looks most like this one. */
export function nearest(red: i32, green: i32, blue: i32): string {
  return search(top, Color.fromRgb(red, green, blue), top, 0).name;
}

/** How many colours have a name. */
export function count(): i32 {
  return colors.length;
}
