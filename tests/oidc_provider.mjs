// A real OpenID provider for tests: node oidc_provider.mjs FOLDER-WITH-NODE_MODULES SETTINGS-JSON
// It prints one line when it listens. Whoever signs in as NAME is the subject NAME with the address NAME@acme.example.
import { createRequire } from 'node:module';
import { createServer } from 'node:http';
import { pathToFileURL } from 'node:url';

const [folder, text] = process.argv.slice(2);
const { port, redirects, secret, algorithm } = JSON.parse(text);
const { Provider } = await import(pathToFileURL(createRequire(`${folder}/`).resolve('oidc-provider')));
const { generateKeyPairSync, randomUUID } = await import('node:crypto');

const kinds = {
  RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  EdDSA: () => generateKeyPairSync('ed25519'),
};
const key = kinds[algorithm]().privateKey.export({ format: 'jwk' });
const issuer = `http://127.0.0.1:${port}`;

const provider = new Provider(issuer, {
  clients: [{
    client_id: 'shared-record',
    client_secret: secret,
    redirect_uris: redirects,
    response_types: ['code'],
    grant_types: ['authorization_code'],
    id_token_signed_response_alg: algorithm,
    token_endpoint_auth_method: 'client_secret_basic',
  }],
  jwks: { keys: [{ ...key, kid: randomUUID(), use: 'sig', alg: algorithm }] },
  enabledJWA: { idTokenSigningAlgValues: [algorithm] },
  claims: { openid: ['sub'], email: ['email', 'email_verified'] },
  conformIdTokenClaims: false,
  cookies: { keys: [randomUUID()] },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, email: `${id}@acme.example`, email_verified: id !== 'unverified' }),
  }),
});
createServer(provider.callback()).listen(port, '127.0.0.1', () => console.log('listening'));
