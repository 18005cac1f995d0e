import Box from '@cloudscape-design/components/box';
import Cards from '@cloudscape-design/components/cards';
import ContentLayout from '@cloudscape-design/components/content-layout';
import Header from '@cloudscape-design/components/header';
import Link from '@cloudscape-design/components/link';
import { t } from '../lib/i18n';
import { useFollow } from '../lib/ui';

const ABOUT: Record<string, string> = {
  WorkSpaces: 'Launch an encrypted desktop for each user, start and stop it, and see the story of its key.',
  'Key Management Service': 'Keys, who may use them, and what was done with them.',
  'Directory Service': 'Directories and the users who get a desktop.',
  'EC2 volumes and snapshots': 'The encrypted disks behind the desktops.',
  IAM: 'Users, groups, roles and policies; try a decision out before it matters.',
  CloudTrail: 'Who did what, when, and with which key.',
};

export default function Home({ services }: { services: { name: string; href: string }[] }) {
  const follow = useFollow();
  return (
    <ContentLayout header={<Header variant="h1" description={t('A cloud of encrypted desktops, on your own machines.')}>{t('Welcome to Sealdesk')}</Header>}>
      <Cards
        items={services}
        trackBy="name"
        cardsPerRow={[{ cards: 1 }, { minWidth: 500, cards: 2 }, { minWidth: 900, cards: 3 }]}
        cardDefinition={{
          header: (s) => (
            <Link href={`/console${s.href}`} onFollow={follow} fontSize="heading-m">
              {t(s.name)}
            </Link>
          ),
          sections: [{ id: 'about', content: (s) => <Box color="text-body-secondary">{t(ABOUT[s.name])}</Box> }],
        }}
      />
    </ContentLayout>
  );
}
