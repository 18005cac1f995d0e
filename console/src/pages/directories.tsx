// The page is not built yet; the shell's route leads here.
export default function Page(_: { managed?: boolean; kind?: string }) {
  return null;
}
