// The smallest useful application. `greeting` is made at the top level, so a
// response that carries it shows that the top level has run.
const greeting = ['hello', 'world'].map((word) => word.toUpperCase()).join(' ');

addEventListener('fetch', (event) => {
  event.respondWith(new Response(greeting, { headers: { 'content-type': 'text/plain' } }));
});
