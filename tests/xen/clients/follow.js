// Uses the unchanged xen-api package as Xen Orchestra does, and says on standard output, a JSON array a line, what
// it got: node follow.js URL USER PASSWORD TRANSPORT
import { createClient } from 'xen-api'

const [url, user, password, transport] = process.argv.slice(2)
const say = (...what) => console.log(JSON.stringify(what))

const xapi = createClient({
  url,
  auth: { user, password },
  transport: transport === 'auto' ? undefined : transport,
})
try {
  await xapi.connect()
} catch (error) {
  say('refused', error.code)
  process.exit(0)
}
await xapi.objectsFetched
const all = () => Object.values(xapi.objects.all)
say('objects', Object.fromEntries(all().map(object => [object.$ref, object.$type])))
say('coordinator', xapi.pool.$master.hostname)

const changed = new Promise(resolve => {
  const former = xapi.pool.name_label
  xapi.objects.on('update', () => {
    if (xapi.pool.name_label !== former) resolve(xapi.pool.name_label)
  })
})
say('following')
say('saw', await changed)

await xapi.call('pool.set_name_description', xapi.pool.$ref, `by ${transport}`)
await xapi.barrier(xapi.pool.$ref)
say('own change', xapi.pool.name_description)

try {
  await xapi.call('host.get_record', 'OpaqueRef:none')
} catch (error) {
  say('error', error.code, error.params)
}
const message = await xapi.call('message.create', 'NAME', 3, 'Pool', xapi.pool.uuid, 'body')
await xapi.callAsync('message.destroy_many', [message])
say('asynchronous call ended')
await xapi.disconnect()
say('end')
process.exit(0)
