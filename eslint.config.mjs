import js from '@eslint/js'
import globals from 'globals'

// benches/scripts holds guests: they run in an engine of their own, not in Node.
export default [
  { ignores: ['**/target/', '**/node_modules/', '**/.cache/', 'benches/scripts/'] },
  js.configs.recommended,
  {
    languageOptions: { globals: globals.node },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: { 'no-var': 'error', 'prefer-const': ['error', { destructuring: 'all' }], eqeqeq: 'error' },
  },
  { files: ['**/*.js'], languageOptions: { sourceType: 'commonjs' } },
  {
    files: ['*.js', 'lib/*.js'],
    rules: {
      'no-restricted-syntax': ['error', { selector: "BinaryExpression[operator='instanceof']:not([right.name='WizerError'])", message: 'It knows this realm only: see lib/brands.js.' }],
    },
  },
]
